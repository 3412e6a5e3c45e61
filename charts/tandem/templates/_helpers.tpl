{{- define "tandem.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "tandem.selector" -}}
app.kubernetes.io/name: tandem
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tandem.labels" -}}
{{ include "tandem.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* What the operator does to deployments and their children; every verb is used. It can read no Secret. */}}
{{- define "tandem.rules" -}}
- apiGroups: [tandem.dev]
  resources: [inferencedeployments]
  verbs: [get, list, watch]
- apiGroups: [tandem.dev]
  resources: [inferencedeployments/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* The HardwareClass objects to keep: the bundled ones with what values change, and those that values add. */}}
{{- define "tandem.hardwareClasses" -}}
{{- $bundled := dict -}}
{{- if .Values.bundledHardwareClasses -}}
{{- $bundled = .Files.Get "files/hardwareclasses.yaml" | fromYaml -}}
{{- end -}}
{{- $all := mergeOverwrite $bundled (deepCopy .Values.hardwareClasses) -}}
installedBy: {{ .Release.Namespace }}/{{ .Release.Name }}
items:
{{- range $name, $class := $all }}
{{- if ne (get $class "enabled" | toString) "false" }}
- metadata:
    name: {{ $name }}
    {{- with $class.about }}
    annotations:
      {{- range $key, $value := . }}
      about.tandem.dev/{{ $key }}: {{ $value | quote }}
      {{- end }}
    {{- end }}
  spec:
    {{- omit $class "about" "enabled" | toYaml | nindent 4 }}
{{- end }}
{{- else }} []
{{- end }}
{{- end -}}

{{/* What the operator does to nodes and hardware classes: cluster-wide, since both have no namespace. */}}
{{- define "tandem.hardwareRules" -}}
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
- apiGroups: [tandem.dev]
  resources: [hardwareclasses]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [tandem.dev]
  resources: [hardwareclasses/status]
  verbs: [patch]
{{- end -}}
