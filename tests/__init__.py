"""The tests, and the commands beside them. A package, because torch-fidelity installs one of the same name."""
