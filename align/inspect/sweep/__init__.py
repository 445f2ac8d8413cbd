"""Trade-offs side by side: fronts of trained or steered models with intervals, hypervolume, attainment, samples."""
