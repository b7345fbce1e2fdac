{{- define "gentrain.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* At most 40 characters, so that what is appended fits a label. */ -}}
{{- define "gentrain.fullname" -}}
{{- $name := include "gentrain.name" . }}
{{- $default := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $default .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* Names of cluster-scoped objects: two releases of the same name in two namespaces do not meet. */ -}}
{{- define "gentrain.clustername" -}}
{{- printf "%s-%s" .Release.Namespace (include "gentrain.fullname" .) }}
{{- end }}

{{- define "gentrain.selector" -}}
app.kubernetes.io/name: {{ include "gentrain.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "gentrain.labels" -}}
{{ include "gentrain.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "gentrain.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest | quote }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
{{- end }}
{{- end }}

{{- define "gentrain.account" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "gentrain.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* The namespaces to watch as a JSON list: white space around a name, empty and repeated ones (`--set 'watchNamespaces={a, b}'`) do not matter. */ -}}
{{- define "gentrain.watched" -}}
{{- $found := list }}
{{- range .Values.watchNamespaces }}
{{- $found = append $found (trim .) }}
{{- end }}
{{- $found = $found | compact | uniq }}
{{- if and .Values.watchNamespaces (not $found) }}
{{- fail "watchNamespaces names no namespace. Name one, or leave it empty ([]) to watch all of them." }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{- /* What the operator does where jobs are. A test compares this with what it was seen to do. */ -}}
{{- define "gentrain.rules" -}}
- apiGroups: [gentrain.dev]
  resources: [generativetrainingjobs]
  verbs: [list, watch, delete]
- apiGroups: [gentrain.dev]
  resources: [generativetrainingjobs/status]
  verbs: [patch]
- apiGroups: [ray.io]
  resources: [rayjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, create, delete]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch, list]
- apiGroups: [kueue.x-k8s.io]
  resources: [localqueues, workloads]
  verbs: [list]
{{- end }}
