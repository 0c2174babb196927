"""One router a subject: the service itself, the catalogue, one video, and who watches when."""
