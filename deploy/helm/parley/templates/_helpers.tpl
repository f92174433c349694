{{- define "parley.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "parley.labels" -}}
app.kubernetes.io/name: parley
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* What every object carries besides. */ -}}
{{- define "parley.meta" -}}
{{ include "parley.labels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "parley.hasRedis" -}}
{{- if or .Values.redis.url .Values.redis.existingSecret }}yes{{ end }}
{{- end }}

{{- /* The nodes of one release. Arguments: root, release (stable or canary), replicas, tag. */ -}}
{{- define "parley.nodes" -}}
{{- $ := .root -}}
{{- $name := include "parley.name" $ -}}
{{- $set := printf "%s-%s" $name .release -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $set }}
  labels:
    {{- include "parley.meta" $ | nindent 4 }}
    release: {{ .release }}
spec:
  serviceName: {{ $name }}-nodes
  replicas: {{ .replicas }}
  podManagementPolicy: Parallel
  selector:
    matchLabels:
      {{- include "parley.labels" $ | nindent 6 }}
      release: {{ .release }}
  template:
    metadata:
      labels:
        {{- include "parley.labels" $ | nindent 8 }}
        release: {{ .release }}
      annotations:
        checksum/config: {{ include (print $.Template.BasePath "/config.yaml") $ | sha256sum }}
        {{- with $.Values.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      terminationGracePeriodSeconds: {{ $.Values.terminationGracePeriodSeconds }}
      enableServiceLinks: false
      automountServiceAccountToken: false
      {{- with $.Values.imagePullSecrets }}
      imagePullSecrets: {{ toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: parley
          image: "{{ $.Values.image.repository }}:{{ .tag }}"
          imagePullPolicy: {{ $.Values.image.pullPolicy }}
          args: [run, --config, /etc/parley/parley.yaml]
          env:
            - {name: PARLEY_LISTEN, value: "0.0.0.0:8080"}
            - {name: PARLEY_TCP_LISTEN, value: {{ ternary "0.0.0.0:7070" "" $.Values.tcp.enabled | quote }}}
            - {name: PARLEY_ADMIN_LISTEN, value: "0.0.0.0:9090"}
            - {name: PARLEY_DATA_DIR, value: /data}
            - {name: PARLEY_AUTH_JWT_KEY_FILE, value: /etc/parley-keys/jwt.key}
            - {name: PARLEY_ADMIN_TOKEN_FILE, value: /etc/parley-keys/admin.token}
            {{- if $.Values.plugins.configMap }}
            - {name: PARLEY_PLUGINS_DIR, value: /etc/parley-plugins}
            - {name: PARLEY_PLUGINS_SHARE, value: "false"} # nobody can write there
            {{- end }}
            {{- if $.Values.redis.existingSecret }}
            - name: PARLEY_REDIS_URL
              valueFrom: {secretKeyRef: {name: {{ $.Values.redis.existingSecret }}, key: url}}
            {{- else if $.Values.redis.url }}
            - {name: PARLEY_REDIS_URL, value: {{ $.Values.redis.url | quote }}}
            {{- end }}
          ports:
            - {name: http, containerPort: 8080}
            {{- if $.Values.tcp.enabled }}
            - {name: tcp, containerPort: 7070}
            {{- end }}
            - {name: admin, containerPort: 9090}
          readinessProbe:
            httpGet: {path: /readyz, port: admin}
            periodSeconds: 2
            failureThreshold: 2
          livenessProbe:
            httpGet: {path: /healthz, port: admin}
            periodSeconds: 10
            failureThreshold: 6
          startupProbe:
            httpGet: {path: /healthz, port: admin}
            periodSeconds: 1
            failureThreshold: 60
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          {{- with $.Values.resources }}
          resources: {{ toYaml . | nindent 12 }}
          {{- end }}
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: tmp, mountPath: /tmp}
            - {name: config, mountPath: /etc/parley, readOnly: true}
            - {name: keys, mountPath: /etc/parley-keys, readOnly: true}
            {{- if $.Values.files.existingSecret }}
            - {name: files, mountPath: /etc/parley-files, readOnly: true}
            {{- end }}
            {{- if $.Values.plugins.configMap }}
            - {name: plugins, mountPath: /etc/parley-plugins, readOnly: true}
            {{- end }}
      volumes:
        - name: config
          configMap: {name: {{ $name }}}
        - name: keys
          secret: {secretName: {{ $.Values.auth.existingSecret | default (printf "%s-keys" $name) }}}
        - name: tmp
          emptyDir: {}
        {{- if $.Values.files.existingSecret }}
        - name: files
          secret: {secretName: {{ $.Values.files.existingSecret }}}
        {{- end }}
        {{- if $.Values.plugins.configMap }}
        - name: plugins
          configMap: {name: {{ $.Values.plugins.configMap }}}
        {{- end }}
        {{- if not $.Values.persistence.enabled }}
        - name: data
          emptyDir: {}
        {{- end }}
      {{- with $.Values.nodeSelector }}
      nodeSelector: {{ toYaml . | nindent 8 }}
      {{- end }}
      {{- with $.Values.tolerations }}
      tolerations: {{ toYaml . | nindent 8 }}
      {{- end }}
      affinity:
        {{- if $.Values.affinity }}
        {{- toYaml $.Values.affinity | nindent 8 }}
        {{- else }}
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm:
                topologyKey: kubernetes.io/hostname
                labelSelector:
                  matchLabels:
                    {{- include "parley.labels" $ | nindent 20 }}
        {{- end }}
  {{- if $.Values.persistence.enabled }}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $.Values.persistence.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ $.Values.persistence.size }}}}
  {{- end }}
{{- end }}

{{- /* A Service of one release. Arguments: root, name, release ("" for all), http, tcp, type, annotations, headless. */ -}}
{{- define "parley.service" -}}
{{- $ := .root -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  labels:
    {{- include "parley.meta" $ | nindent 4 }}
  {{- with .annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .type | default "ClusterIP" }}
  {{- if .headless }}
  clusterIP: None
  publishNotReadyAddresses: true
  {{- end }}
  selector:
    {{- include "parley.labels" $ | nindent 4 }}
    {{- with .release }}
    release: {{ . }}
    {{- end }}
  ports:
    {{- if .http }}
    - {name: http, port: 80, targetPort: http, appProtocol: http}
    {{- end }}
    {{- if .tcp }}
    - {name: tcp, port: 7070, targetPort: tcp}
    {{- end }}
    {{- if .headless }}
    - {name: admin, port: 9090, targetPort: admin}
    {{- end }}
{{- end }}
