"""The store: schema, create, open, validate; volumes and masked voxels as labelled arrays."""

from emhet_dask.ensemble.ensemble import Ensemble, from_array, open_ensemble

__all__ = ["Ensemble", "from_array", "open_ensemble"]
