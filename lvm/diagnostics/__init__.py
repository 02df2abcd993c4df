"""Gates: functions that look at the data or a model and refuse when a later number would be false."""
