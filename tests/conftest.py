"""Settings for every test."""

import hypothesis

# The machines that run this are shared: a slow example says nothing. The same examples every time: a failure is a change's.
hypothesis.settings.register_profile("default", deadline=None, derandomize=True)
hypothesis.settings.register_profile("quick", deadline=None, derandomize=True, max_examples=15)
hypothesis.settings.load_profile("default")
