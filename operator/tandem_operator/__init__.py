"""The control plane of Tandem: a kopf operator that reconciles InferenceDeployments."""
