"""Settings for every test."""

import hypothesis

# The machines that run this are shared: a slow example says nothing. The same examples every time: a failure is a change's.
# Most of these tests run over every rule and decay, with other examples for each: 50 of each are thousands.
hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.register_profile("quick", deadline=None, derandomize=True, max_examples=15)
hypothesis.settings.load_profile("default")
