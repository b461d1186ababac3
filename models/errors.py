"""What can go wrong with a model, as one tree, so that a caller can catch broadly or narrowly.

ModelError
├── BadDataset          a data file or a list of examples cannot be learned from or graded on
├── BadTask             a task file or task name is wrong
├── BadBase             a base encoder cannot be found or read
├── BadRelease          a release cannot be used for what was asked
├── BadKnob             a recipe, or a knob of training, is not there or out of its range
├── BadTeacher          a release cannot teach another model
├── ReleaseNotFound     no release answers to this task and reference
├── ReleaseExists       the destination already holds something else
├── IntegrityError      a release's file is missing, or is not the one its manifest names
├── ExportMismatch      the exported graph does not give the checkpoint's scores
├── DeviceUnavailable   the device asked for is not there
├── RuntimeUnavailable  what is to run a model is not installed, or does not give the model's scores
├── BadReference        a name is none of a release in the model registry, or no alias
├── RegistryRefused     the model registry does not let us do what was asked
├── RegistryUnavailable the model registry does not answer, or fails
├── BadRun              a run of the learning loop is not there, or not as far as what was asked needs
├── Busy                another process is at work where only one may be
└── MissingExtra        an optional dependency is not installed
"""


class ModelError(Exception):
    """Anything in `models` that a user can put right; its text says what is wrong and what to do."""


class BadDataset(ModelError):
    """A data file or a list of examples cannot be learned from or graded on."""


class BadTask(ModelError):
    """A task file or a task name is wrong."""


class BadBase(ModelError):
    """A base encoder cannot be found or read."""


class BadRelease(ModelError):
    """A release cannot be used for what was asked, such as compressing one that is compressed."""


class BadKnob(ModelError):
    """A recipe or a knob of training is not there, or out of its range."""


class BadTeacher(ModelError):
    """A release cannot teach another model: its labels or scores do not fit."""


class ReleaseNotFound(ModelError):
    """No release answers to this task and reference."""


class ReleaseExists(ModelError):
    """The destination already holds something else; releases are never overwritten."""


class IntegrityError(ModelError):
    """A release's file is missing, or is not the one its manifest names."""


class ExportMismatch(ModelError):
    """The exported graph does not give the checkpoint's scores."""


class DeviceUnavailable(ModelError):
    """The device asked for is not there or not usable."""


class RuntimeUnavailable(ModelError):
    """What is to run a model is not installed or not usable here, or does not give the model's own scores."""


class BadReference(ModelError):
    """A name is none of a release in the model registry, or cannot be an alias."""


class RegistryRefused(ModelError):
    """The model registry does not know who we are, or does not let us do what was asked: trying again will not help."""


class RegistryUnavailable(ModelError):
    """The model registry does not answer, or fails: it may be there later."""


class BadRun(ModelError):
    """A run of the learning loop is not there, or not where it can be approved or shown."""


class Busy(ModelError):
    """Another process is at work where only one may be."""


class MissingExtra(ModelError):
    """An optional dependency is not installed."""


TRAIN_EXTRA = 'pip install "streamgauge[train]"'
DATA_EXTRA = 'pip install "streamgauge[data]"'
REGISTRY_EXTRA = 'pip install "streamgauge[registry]"'
