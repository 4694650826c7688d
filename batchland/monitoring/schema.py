"""The parts of a night's record that come from monitoring."""

from batchland.system.documents import Count, Document


class CanaryCheck(Document):
    """The result of a check of canaries."""

    images: Count
    largest_difference: float
    """Of a probability, to the stored one."""
    tolerance: float
    """Largest difference that is no fault."""
