"""Files of other programs, read and written with NumPy and pandas alone.

`mrc` holds maps, `sources` finds them behind whatever a user may name, and `grid` judges whether
they go together; `star`, `relion`, `cryodrgn` and `cryosparc` read what those programs wrote, and
`tables` the CSV files of the user's own. Everything read here is untrusted: nothing is unpickled
but arrays and plain containers, no length in a header is believed before the size of the file has
been asked, and what cannot be read is an `InputError` of one line.
"""
