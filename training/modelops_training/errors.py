"""Everything that training refuses, in one tree.

TrainingError
  DataError          the frame cannot be trained on; names the column
  ParityError        two forms of one model disagree; nothing is saved
  NoFastForm         a model of your own can only be served by its own library
  RegistrationError  MLflow did not take, or does not give back, what was registered
    AliasError       the aliases could not be moved; they are where they were, or a repair waits
"""


class TrainingError(Exception):
    """Training or registering stopped; no alias has moved because of it."""


class DataError(TrainingError, ValueError):
    """A column, or the table as a whole, is not fit for training."""


class ParityError(TrainingError):
    """The fast form of a model does not answer like the model it was made from."""


class NoFastForm(TrainingError):  # noqa: N818 (it names what is the case; `register` goes on)
    """A model, or a step of its pipeline, has no form that serves without its library."""


class TrainingWarning(UserWarning):
    """Something that works, and that somebody should know: its cost, or what will not repeat."""


class RegistrationError(TrainingError):
    """MLflow refused a model, or what it gives back is not what was sent."""


class AliasError(RegistrationError):
    """The aliases were not moved to the new versions."""
