"""MosaicKD and what it is compared with: how each trains a student.

The table's row "Balanced" is `KnowledgeDistillation` on the images that
`keras_mosaickd.data.balance` chooses.
"""

from keras_mosaickd.methods.data_free import DataFree, data_free, data_free_stream
from keras_mosaickd.methods.distillation import KnowledgeDistillation, Supervised
from keras_mosaickd.methods.fitnet import FitNet
from keras_mosaickd.methods.mosaic_kd import MosaicKD

__all__ = [
    "DataFree",
    "FitNet",
    "KnowledgeDistillation",
    "MosaicKD",
    "Supervised",
    "data_free",
    "data_free_stream",
]
