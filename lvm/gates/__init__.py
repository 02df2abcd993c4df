"""Gates: functions that check the data or a model, and fail where every later number would be false."""
