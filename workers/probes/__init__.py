"""The probe kinds, one module each; ``registry`` knows them by name."""
