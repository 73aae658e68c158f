"""The pictures that ControlNets read, each drawn over the whole result and then cut: so neighbours agree."""
