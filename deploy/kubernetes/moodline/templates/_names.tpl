{{/* Names, labels and the parts that all pods share. */}}

{{- define "moodline.name" -}}
{{- if contains "moodline" .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-moodline" (.Release.Name | trunc 31 | trimSuffix "-") }}{{- end -}}
{{- end -}}

{{- define "moodline.release" -}}
app.kubernetes.io/name: moodline
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Takes (list root component). What a Deployment selects by: never changes. */}}
{{- define "moodline.selector" -}}
{{- $root := index . 0 -}}
{{ include "moodline.release" $root }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "moodline.labels" -}}
{{- $root := index . 0 -}}
{{ include "moodline.selector" . }}
app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- with $root.Values.extraLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes (list root image-suffix). */}}
{{- define "moodline.image" -}}
{{- $image := (index . 0).Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}/{{ index . 1 }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end -}}

{{- define "moodline.secretName" -}}
{{- .Values.secrets.existingSecret | default (include "moodline.name" .) -}}
{{- end -}}

{{/* Takes (list root secret-name names…): environment variables out of the Secret, and no others. */}}
{{- define "moodline.secretEnv" -}}
{{- $secret := index . 1 -}}
{{- range slice . 2 }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ . }}
      {{- if has . (list "MOODLINE_SECRETS_KEY" "MOODLINE_TRACING_HEADERS") }}
      optional: true
      {{- end }}
{{- end }}
{{- end -}}

{{/* Takes (list root component). What a component's settings say, over those of all. */}}
{{- define "moodline.settings" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $own := dict -}}
{{- if eq $component "api" -}}
{{- $_ := set $own "MOODLINE_API_HOST" "0.0.0.0" -}}
{{- $_ := set $own "MOODLINE_API_PORT" "8000" -}}
{{- $_ := set $own "MOODLINE_API_ACCESS" "keys" -}}
{{- else -}}
{{- $_ := set $own "MOODLINE_WORKER_METRICS_HOST" "0.0.0.0" -}}
{{- $_ := set $own "MOODLINE_WORKER_METRICS_PORT" "9100" -}}
{{- end -}}
{{- if $root.Values.tracing.endpoint -}}
{{- $_ := set $own "MOODLINE_TRACING_ENDPOINT" $root.Values.tracing.endpoint -}}
{{- $_ := set $own "MOODLINE_TRACING_RATIO" $root.Values.tracing.ratio -}}
{{- end -}}
{{- if has $component (list "api" "ingest") -}}
{{- $_ := set $own "MOODLINE_INGEST_MEDIA_ROOT" "/media" -}}
{{- $_ := set $own "MOODLINE_INGEST_SCHEMES" (ternary "file,synthetic,rtsp,rtsps,http,https,push" "synthetic,rtsp,rtsps,http,https,push" (not (empty $root.Values.media.existingClaim))) -}}
{{- end -}}
{{- if and (eq $component "classifier") $root.Values.classifier.gpu.enabled -}}
{{- $_ := set $own "MOODLINE_CLASSIFIER_ENGINE" "tensorflow" -}}
{{- end -}}
{{- $given := index $root.Values $component | default dict -}}
{{- range $name, $value := merge dict ($given.settings | default dict) $root.Values.settings $own }}
{{ $name }}: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- define "moodline.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.podSecurityContext.runAsUser }}
  runAsGroup: {{ .Values.podSecurityContext.runAsGroup }}
  fsGroup: {{ .Values.podSecurityContext.fsGroup }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "moodline.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Takes (list root component). The root is read-only, so what a process writes goes to volumes. */}}
{{- define "moodline.mounts" -}}
{{- $root := index . 0 -}}
- name: tmp
  mountPath: /tmp
{{- if $root.Values.tls.existingSecret }}
- name: tls
  mountPath: /etc/moodline/tls
  readOnly: true
{{- end }}
{{- if has (index . 1) (list "api" "ingest") }}
- name: media
  mountPath: /media
  {{- if eq (index . 1) "ingest" }}
  readOnly: true
  {{- end }}
{{- end }}
{{- end -}}

{{- define "moodline.volumes" -}}
{{- $root := index . 0 -}}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- with $root.Values.tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- if has (index . 1) (list "api" "ingest") }}
- name: media
  {{- if $root.Values.media.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ $root.Values.media.existingClaim }}
  {{- else }}
  emptyDir:
    sizeLimit: 1Gi
  {{- end }}
{{- end }}
{{- end -}}

{{- define "moodline.secretData" -}}
MOODLINE_BUS_URL: {{ .Values.secrets.busUrl | quote }}
MOODLINE_STORE_URL: {{ .Values.secrets.storeUrl | quote }}
{{- with .Values.secrets.sealingKey }}
MOODLINE_SECRETS_KEY: {{ . | quote }}
{{- end }}
{{- end -}}
