"""VGGT outside of eager torch: exported, built, cached, checked, and run by whatever runtime a machine has."""
