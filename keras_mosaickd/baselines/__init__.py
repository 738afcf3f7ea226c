"""What MosaicKD is compared with.

The table's row "Balanced" is `KnowledgeDistillation` on the pictures that
`keras_mosaickd.data.balance` chooses.
"""

from keras_mosaickd.baselines.data_free import DataFree, data_free_stream
from keras_mosaickd.baselines.fitnet import FitNet
from keras_mosaickd.baselines.student_only import KnowledgeDistillation, Supervised

__all__ = ["DataFree", "FitNet", "KnowledgeDistillation", "Supervised", "data_free_stream"]
