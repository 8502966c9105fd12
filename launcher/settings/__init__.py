"""What a run is asked to do: words and keywords become settings, names what they mean."""
