{{- define "devd.name" -}}
{{- if contains "devd" .Release.Name -}}{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-devd" .Release.Name | trunc 53 | trimSuffix "-" }}{{- end -}}
{{- end }}

{{- define "devd.labels" -}}
app.kubernetes.io/name: devd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "devd.image" -}}
{{- if .Values.image.digest -}}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{- end -}}
{{- end }}
