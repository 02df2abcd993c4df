"""Tables for terminals and reports, by subject."""
