"""Trained models that turn latents into volumes: arrays in, arrays out.

A decoder gives Fourier coefficients; volumes are their inverse transform. What is linear in a
volume can therefore be had from few coefficients, see `emhet_dask.decoders.protocol.Decoder`.
Models are of other programs and are evaluated through their own packages, which are optional.
"""

from emhet_dask.decoders.cryodrgn import CryodrgnModel
from emhet_dask.decoders.protocol import Decoder, DecoderModel

__all__ = ["CryodrgnModel", "Decoder", "DecoderModel"]
