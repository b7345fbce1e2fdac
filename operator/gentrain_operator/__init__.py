"""The Kubernetes operator: turns each GenerativeTrainingJob into KubeRay RayJobs and keeps it alive."""
