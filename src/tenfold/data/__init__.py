"""Where pictures come from: sources, formats, splits and a look at them."""

from tenfold.data.images import Dataset, Images

__all__ = ["Dataset", "Images"]
