{{- define "modelops.fullname" -}}
{{- default (default .Chart.Name .Values.nameOverride) .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{/* Labels of everything in the chart. Takes the root. */}}
{{- define "modelops.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: modelops
{{- end }}

{{/* Labels that select the pods of a component. Takes a dict of root and component. */}}
{{- define "modelops.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Name of what belongs to a component: the operator's is the chart's own. */}}
{{- define "modelops.componentName" -}}
{{- $name := include "modelops.fullname" .root -}}
{{- if eq .component "operator" }}{{ $name }}{{ else }}{{ printf "%s-%s" (trimSuffix "-operator" $name) .component }}{{ end }}
{{- end }}

{{- define "modelops.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- if $account.create }}{{ default (include "modelops.componentName" .) $account.name }}{{ else }}{{ required (printf "%s.serviceAccount.name: name an existing ServiceAccount, or let the chart create one" .component) $account.name }}{{ end }}
{{- end }}

{{- define "modelops.image" -}}
{{- $image := (index .root.Values .component).image -}}
{{- $repository := $image.repository | default (list .root.Values.registry.host .root.Values.registry.prefix .component | compact | join "/") -}}
{{- if $image.digest }}{{ printf "%s@%s" $repository $image.digest }}{{ else }}{{ printf "%s:%s" $repository (default .root.Chart.AppVersion $image.tag) }}{{ end }}
{{- end }}

{{- define "modelops.hasCaBundle" -}}
{{- if or .Values.caBundle.pem .Values.caBundle.configMap.name }}true{{ end }}
{{- end }}

{{- define "modelops.caConfigMap" -}}
{{- default (printf "%s-ca" (include "modelops.fullname" .)) .Values.caBundle.configMap.name }}
{{- end }}

{{/* The configuration file that operator and builder share. */}}
{{- define "modelops.config" -}}
{{- $builder := pick .Values.builder "indexUrls" "concurrency" "python" "bases" "rebase" "platforms" "attest" "scratch" "runtimeBundle" -}}
{{- if include "modelops.hasCaBundle" . }}{{ $_ := set $builder "caBundle" "/etc/modelops/ca/ca.crt" }}{{ end }}
{{- if .Values.builder.signing.existingSecret }}{{ $_ := set $builder "signing" (dict "key" "/etc/modelops/signing/cosign.key") }}{{ end }}
{{- $registry := pick .Values.registry "host" "prefix" "insecure" "auth" -}}
{{- $_ := required "registry.host: name the image registry, such as registry.example.com:5000" $registry.host }}
{{- if or .Values.registry.dockerConfigSecret .Values.verification.dockerConfigSecret }}{{ $_ := set $registry "dockerConfig" "/etc/modelops/registry/config.json" }}{{ end }}
{{- $verification := pick .Values.verification "mode" -}}
{{- if include "modelops.verifies" . }}{{ $_ := set $verification "keys" "/etc/modelops/verification/cosign.pub" }}{{ end }}
{{- $monitoring := omit .Values.monitoring "webhook" -}}
{{- with .Values.monitoring.webhook }}{{ if .url }}
{{- $_ := required "monitoring.webhook.existingSecret: name a Secret with what events are signed with" .existingSecret }}
{{- $_ := set $monitoring "webhook" (dict "url" .url "secretFile" "/etc/modelops/webhook/secret" "timeout" .timeout) }}
{{- end }}{{ end -}}
{{- $mlflow := pick .Values.mlflow "trackingUri" "pollInterval" "settle" -}}
{{- $_ := required "mlflow.trackingUri: give the address of the MLflow server, such as http://mlflow.example.com:5000" $mlflow.trackingUri }}
{{- $operator := pick .Values.operator "namespaces" "workers" "sweepInterval" "leaderElection" "metricsPort" "healthPort" -}}
{{- with .Values.operator.maintenanceWindow }}{{ $_ := set $operator "maintenanceWindow" . }}{{ end -}}
{{- $_ := set $operator "namespace" .Release.Namespace -}}
{{- dict "mlflow" $mlflow "registry" $registry "builder" $builder "verification" $verification "monitoring" $monitoring "policy" (pick .Values.policy "models" "podSecurity") "operator" $operator "runtime" .Values.runtime | toYaml }}
{{- end }}

{{/* Non-empty where images are verified. Asks for the one place that the keys are in. */}}
{{- define "modelops.verifies" -}}
{{- if eq .Values.verification.mode "Enforce" -}}
{{- $keys := .Values.verification.keys -}}
{{- $_ := required "verification.keys: name an existingSecret or an existingConfigMap with the public keys that are trusted" (or $keys.existingSecret $keys.existingConfigMap) -}}
{{- if and $keys.existingSecret $keys.existingConfigMap }}{{ fail "verification.keys: name an existingSecret or an existingConfigMap, not both" }}{{ end -}}
{{- if eq .Values.registry.auth "Basic" }}{{ $_ := required "verification.credentialsSecret: name a Secret with which the operator may read the registry, since registry.auth is Basic" .Values.verification.credentialsSecret }}{{ end -}}
{{- if eq .Values.registry.auth "DockerConfig" }}{{ $_ := required "verification.dockerConfigSecret: name a Secret with which the operator may read the registry, since registry.auth is DockerConfig" .Values.verification.dockerConfigSecret }}{{ end -}}
true
{{- end }}
{{- end }}

{{/* CEL: whether a value is one of the patterns, in which * stands for any characters. Takes a list of both. */}}
{{- define "modelops.matches" -}}
{{- $patterns := list -}}
{{- range index . 1 }}{{ $patterns = append $patterns (regexQuoteMeta . | replace "\\*" ".*") }}{{ end -}}
{{ index . 0 }}.matches({{ printf "^(%s)$" (join "|" $patterns) | toJson }})
{{- end }}

{{/* Pods under the restricted pod security standard. */}}
{{- define "modelops.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "modelops.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
What Azure's workload identity looks for: the operator's is for Log Analytics, the builder's for the
registry. What the values say for themselves wins. All take a dict of root and component.
*/}}
{{- define "modelops.identity" -}}
{{- ternary .root.Values.registry.azure .root.Values.operator.workloadIdentity (eq .component "builder") | toYaml }}
{{- end }}

{{- define "modelops.podLabels" -}}
{{- $identity := include "modelops.identity" . | fromYaml -}}
{{- $labels := dict -}}
{{- if or $identity.clientId (and (eq .root.Values.registry.auth "ACR") (or (eq .component "builder") (include "modelops.verifies" .root))) }}{{ $_ := set $labels "azure.workload.identity/use" "true" }}{{ end }}
{{- with mergeOverwrite $labels (index .root.Values .component).podLabels }}{{ toYaml . }}{{ end }}
{{- end }}

{{- define "modelops.serviceAccountAnnotations" -}}
{{- $identity := include "modelops.identity" . | fromYaml -}}
{{- $annotations := dict -}}
{{- range $key, $value := dict "client-id" $identity.clientId "tenant-id" $identity.tenantId }}
{{- if $value }}{{ $_ := set $annotations (printf "azure.workload.identity/%s" $key) $value }}{{ end }}
{{- end }}
{{- with mergeOverwrite $annotations (index .root.Values .component).serviceAccount.annotations }}{{ toYaml . }}{{ end }}
{{- end }}

{{/* Environment that both components share. Takes the root. */}}
{{- define "modelops.environment" -}}
- name: MODELOPS_CONFIG
  value: /etc/modelops/config.yaml
- name: HOME
  value: /tmp
- name: MODELOPS_POD
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- if include "modelops.hasCaBundle" . }}
- name: SSL_CERT_FILE
  value: /etc/modelops/ca/ca.crt
- name: REQUESTS_CA_BUNDLE
  value: /etc/modelops/ca/ca.crt
{{- end }}
{{- end }}

{{/* What a registry knows a component by. Both take a dict of the Secrets' names: credentialsSecret, dockerConfigSecret. */}}
{{- define "modelops.registryEnvironment" -}}
{{- with .credentialsSecret }}
- name: MODELOPS_REGISTRY_USERNAME
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: username}
- name: MODELOPS_REGISTRY_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: password}
{{- end }}
{{- end }}

{{- define "modelops.registryVolume" -}}
{{- with .dockerConfigSecret }}
- name: registry
  secret:
    secretName: {{ . }}
    items:
      - {key: .dockerconfigjson, path: config.json}
{{- end }}
{{- end }}

{{- define "modelops.mounts" -}}
- name: config
  mountPath: /etc/modelops/config.yaml
  subPath: config.yaml
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if include "modelops.hasCaBundle" . }}
- name: ca
  mountPath: /etc/modelops/ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "modelops.volumes" -}}
- name: config
  configMap:
    name: {{ include "modelops.fullname" . }}
{{- if include "modelops.hasCaBundle" . }}
- name: ca
  configMap:
    name: {{ include "modelops.caConfigMap" . }}
    items:
      - key: {{ .Values.caBundle.configMap.key }}
        path: ca.crt
{{- end }}
{{- end }}

{{/* What a user can set of a pod's place. Takes the component's values. */}}
{{- define "modelops.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "modelops.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 2
  timeoutSeconds: 2
{{- end }}

{{/* What leader election needs. Takes a dict of root and lease. */}}
{{- define "modelops.leaseRules" -}}
{{- if .root.Values.operator.leaderElection.enabled -}}
# A Role cannot name what is yet to be created, hence create by itself.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ .lease }}]
  verbs: [get, update]
{{- end }}
{{- end }}
