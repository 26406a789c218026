"""A model as one HTML file that generates text offline, in any browser."""
