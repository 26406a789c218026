"""The public names of revgen: what type checkers read, and what ``revgen.<name>`` imports on first use."""

from . import (
    cells as cells,
    compiler as compiler,
    datasets as datasets,
    errors as errors,
    hub as hub,
    ops as ops,
    testing as testing,
    tokenizers as tokenizers,
)
from .architectures.functional_model import FunctionalModel as FunctionalModel
from .architectures.gated_mixture import GatedMixture as GatedMixture, mix as mix
from .architectures.mixture import Mixture as Mixture
from .cells import Cell as Cell
from .comparison.compare import Comparison as Comparison, compare as compare
from .corpus import Corpus as Corpus, read as read
from .errors import (
    CheckpointError as CheckpointError,
    CorpusError as CorpusError,
    HubError as HubError,
    MissingExtraError as MissingExtraError,
    NotFittedError as NotFittedError,
    NotTraceableError as NotTraceableError,
    OptionError as OptionError,
    RegistrationError as RegistrationError,
    RevgenError as RevgenError,
    TrainingError as TrainingError,
    UnknownNameError as UnknownNameError,
    VocabularyError as VocabularyError,
)
from .evaluation.likelihood import Evaluation as Evaluation, Score as Score
from .generation.config import GenerationConfig as GenerationConfig
from .generation.filters import Filter as Filter
from .generation.guides import Guide as Guide
from .generation.together import synthesize as synthesize
from .history import EpochMetrics as EpochMetrics, History as History
from .interop.conversion import to_transformers as to_transformers
from .language_model import LanguageModel as LanguageModel
from .model import Model as Model
from .networks.functional import FunctionalNetwork as FunctionalNetwork
from .registry import (
    register_cell as register_cell,
    register_filter as register_filter,
    register_model as register_model,
    register_tokenizer as register_tokenizer,
)
from .tokenizers import Tokenizer as Tokenizer
from .training.callbacks import (
    Callback as Callback,
    StepMetrics as StepMetrics,
    TensorBoard as TensorBoard,
    WandB as WandB,
)
from .training.checkpoint import CheckpointConfig as CheckpointConfig
from .training.lr_finder import LRFinderResult as LRFinderResult
from .zoo import (
    ModelInfo as ModelInfo,
    ModelTable as ModelTable,
    create as create,
    list_models as list_models,
    load as load,
    models as models,
)

__version__: str
