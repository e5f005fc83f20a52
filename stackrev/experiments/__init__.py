"""Many runs of a setting: searches and seeds."""
