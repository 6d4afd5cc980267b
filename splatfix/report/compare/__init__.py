"""The comparison of restorers: the contents of ``compare.json``, and its page."""
