"""Say what was asked, what is, and what to do: the one error tree of the package.

MllmNpuError
├── ConfigError        a configuration that cannot be composed or built
├── DeviceError        an accelerator that is asked for and is not there
├── DataError          a data set, shard, index or picture that cannot be read
│   ├── PictureTooLargeError   a picture with more pixels than are decoded
│   └── SkipSample     one sample that is left out and counted; the run goes on
│       └── SampleFiltered   one that is left out because a filter says so
├── WeightsError       weights that do not fit the model they are meant for
├── CheckpointError    a training state that cannot be saved or resumed
├── TrainingError      a run that cannot go on (loss not finite, nothing to train)
├── ServingError       a service that cannot be started, or whose engine has failed
├── JudgeError         a judge of an evaluation that does not answer
└── RequestError       a question to the model that cannot be answered as it was put
    ├── TooLongError   one with more tokens than the model takes
    └── BusyError      one that may be asked again later, when others have been answered

The command line prints the message of any of these on one line, notes of it below as they are, and
exits with code 2.
"""


class MllmNpuError(Exception):
    """The root: whoever uses the package as a library may catch this one."""


class ConfigError(MllmNpuError):
    """A configuration that cannot be composed or built."""


class DeviceError(MllmNpuError):
    """An accelerator that is asked for and is not there."""


class DataError(MllmNpuError):
    """A data set, shard, index or picture that cannot be read."""


class PictureTooLargeError(DataError):
    """A picture with more pixels than are decoded."""


class SkipSample(DataError):  # noqa: N818  # it is a request to skip, not a failure
    """One sample that is left out and counted under its message; the run goes on."""


class SampleFiltered(SkipSample):
    """One sample that a filter of its task leaves out; nothing is wrong with it."""


class WeightsError(MllmNpuError):
    """Weights that do not fit the model they are meant for."""


class CheckpointError(MllmNpuError):
    """A training state that cannot be saved or resumed."""


class TrainingError(MllmNpuError):
    """A run that cannot go on."""


class ServingError(MllmNpuError):
    """A service that cannot be started, or that cannot go on."""


class JudgeError(MllmNpuError):
    """A judge of an evaluation that does not answer, or answers no judge's reply."""


class RequestError(MllmNpuError):
    """A question to the model that cannot be answered as it was put."""


class TooLongError(RequestError):
    """A question with more tokens than the model takes."""


class BusyError(RequestError):
    """A question that may be asked again later: too many wait before it."""
