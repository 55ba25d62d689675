"""A registry image that has a storage inside, and back from such an image to a history."""
