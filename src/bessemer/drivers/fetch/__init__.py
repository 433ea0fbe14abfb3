"""Content by digest: a host's cache of images and models, and the control side's import of them."""
