"""One router a subject: the service itself, and the videos."""
