"""Write vector files, whole or not at all."""
