"""What a worker puts itself behind before it touches its device. See docs/security.md for what stops what."""
