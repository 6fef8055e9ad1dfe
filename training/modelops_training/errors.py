"""Everything that training refuses, in one tree.

TrainingError
  DataError          the frame cannot be trained on; names the column
  ParityError        two forms of one model disagree; nothing is saved
  RegistrationError  MLflow did not take, or does not give back, what was registered
    AliasError       the aliases could not be moved; they are where they were, or a repair waits
"""


class TrainingError(Exception):
    """Training or registering stopped; no alias has moved because of it."""


class DataError(TrainingError, ValueError):
    """A column, or the table as a whole, is not fit for training."""


class ParityError(TrainingError):
    """The fast form of a model does not answer like the model it was made from."""


class RegistrationError(TrainingError):
    """MLflow refused a model, or what it gives back is not what was sent."""


class AliasError(RegistrationError):
    """The aliases were not moved to the new versions."""
