"""The science: arrays in, labelled arrays out; one file per idea.

Nothing here knows a path, a client or a plot. Import from the file that holds the idea, or what
`emhet_dask` itself exports.
"""
