"""Small prompt sets of our own, so that shipped recipes for language models run as they are."""
