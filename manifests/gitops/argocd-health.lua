-- How Argo CD shows a GenerativeTrainingJob: resource.customizations.health.gentrain.dev_GenerativeTrainingJob in the ConfigMap argocd-cm.
local health = {status = "Progressing", message = "the operator has not looked at it yet"}
local status = obj.status
if status == nil or status.conditions == nil or (status.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return health
end
local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local function is(kind, value)
  return found[kind] ~= nil and found[kind].status == value
end
health.message = status.message or ""
if is("Failed", "True") then
  health.status = "Degraded"
elseif is("Complete", "True") then
  health.status = "Healthy"
elseif is("Suspended", "True") then
  health.status = "Suspended"
elseif is("Accepted", "False") then
  health.status = "Degraded"
  health.message = found["Accepted"].message
elseif is("Running", "False") and found["Running"].reason == "Stalled" then
  health.status = "Degraded"
  health.message = found["Running"].message
elseif is("Ready", "True") then
  health.status = "Healthy"
end
return health
