"""The shared core: rewards to training signal, one training loop, one set of reports. Imports neither branch."""
