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

{{- /* The port of config.metrics.listen, which has to be one that another node reaches. */}}
{{- define "devd.metricsPort" -}}
{{- $listen := dig "metrics" "listen" "" .Values.config -}}
{{- if not (regexMatch "^.+:[0-9]+$" (toString $listen)) -}}
{{- fail "monitoring.enabled needs config.metrics.listen, as in 0.0.0.0:9400: devd opens no port by itself" -}}
{{- end -}}
{{- if regexMatch "^(127\\.|\\[::1\\])" $listen -}}
{{- fail (printf "config.metrics.listen: %s is reached from inside the pod only, not by Prometheus: 0.0.0.0 is needed for monitoring.enabled" $listen) -}}
{{- end -}}
{{- regexFind "[0-9]+$" $listen -}}
{{- end }}

{{- /* The affinity of the values, and the label that Node Feature Discovery sets: in each term, since any one of them is enough. */}}
{{- define "devd.affinity" -}}
{{- $affinity := deepCopy .Values.affinity -}}
{{- if .Values.nfd.enabled -}}
{{- $label := dict "key" "feature.node.kubernetes.io/devd" "operator" "In" "values" (list "true") -}}
{{- $terms := dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" "nodeSelectorTerms" (list (dict)) $affinity -}}
{{- $both := list -}}
{{- range $terms -}}
{{- $both = append $both (merge (dict "matchExpressions" (append (.matchExpressions | default list) $label)) .) -}}
{{- end -}}
{{- $required := dict "nodeAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $both)) -}}
{{- $affinity = mergeOverwrite $affinity $required -}}
{{- end -}}
{{- with $affinity }}{{ toYaml . }}{{ end -}}
{{- end }}
