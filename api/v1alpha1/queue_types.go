package v1alpha1

// EncryptionType says who holds the key a queue is encrypted with.
// +kubebuilder:validation:Enum=SQSManaged;KMS;None
type EncryptionType string

const (
	// EncryptionSQSManaged is server-side encryption with keys that SQS owns (SSE-SQS, AWS's default).
	EncryptionSQSManaged EncryptionType = "SQSManaged"
	// EncryptionKMS is server-side encryption with a key in AWS KMS (SSE-KMS).
	EncryptionKMS EncryptionType = "KMS"
	// EncryptionNone turns server-side encryption off.
	EncryptionNone EncryptionType = "None"
)

// Encryption is a queue's server-side encryption.
// +kubebuilder:validation:XValidation:rule="(self.type == 'KMS') == has(self.kmsKeyID)",message="kmsKeyID is required with type KMS, and refused with any other type"
// +kubebuilder:validation:XValidation:rule="!has(self.dataKeyReuseSeconds) || self.type == 'KMS'",message="dataKeyReuseSeconds goes with type KMS only"
type Encryption struct {
	// type is SQSManaged (keys that SQS owns), KMS (a key of yours in AWS KMS) or None.
	// +required
	Type EncryptionType `json:"type,omitempty"`

	// kmsKeyID is the ID, ARN or alias (alias/name) of the KMS key. Required with type KMS.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	KMSKeyID string `json:"kmsKeyID,omitempty"`

	// dataKeyReuseSeconds is how long SQS reuses a data key before it asks KMS again, 60 to 86400.
	// Unset: AWS's default, 300.
	// +optional
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=86400
	DataKeyReuseSeconds *int32 `json:"dataKeyReuseSeconds,omitempty"`
}

// Tags are AWS tags on a queue. Keys are 1 to 128 and values at most 256 characters long, of letters and digits of any script,
// spaces and _ . : / = + - @. Reserved keys are refused in
// whatever case: SQS tells cases apart, and IAM conditions do not.
// +kubebuilder:validation:MaxProperties=40
// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) >= 1 && size(k) <= 128)",message="a tag's key is 1 to 128 characters long"
// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[\\\\p{L}\\\\p{N}\\\\p{Z}_.:/=+@-]*$'))",message="a tag's key is of letters, digits, spaces and _ . : / = + - @"
// +kubebuilder:validation:XValidation:rule="self.all(k, !k.matches('(?i)^(aws:|replyqueue[.]dev/|kubernetes-|__amazonsqs|__idlequeue)'))",message="tags that start, in whatever case, with aws:, replyqueue.dev/, kubernetes-, __AmazonSQS or __IdleQueue carry ownership and access, and are the operator's to write"
type Tags map[string]TagValue

// TagValue is the value of a tag.
// +kubebuilder:validation:MaxLength=256
// +kubebuilder:validation:Pattern=`^[\p{L}\p{N}\p{Z}_.:/=+@-]*$`
type TagValue string

// Strings are the tags as AWS's SDK takes them.
func (t Tags) Strings() map[string]string {
	all := make(map[string]string, len(t))
	for key, value := range t {
		all[key] = string(value)
	}
	return all
}

// ProviderReference names a QueueProvider.
type ProviderReference struct {
	// name of the QueueProvider.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`
}

// NamespacesFrom says which namespaces are meant.
// +kubebuilder:validation:Enum=Same;Selector;All
type NamespacesFrom string

const (
	// NamespacesFromSame is the object's own namespace.
	NamespacesFromSame NamespacesFrom = "Same"
	// NamespacesFromSelector is every namespace whose labels match a selector.
	NamespacesFromSelector NamespacesFrom = "Selector"
	// NamespacesFromAll is every namespace.
	NamespacesFromAll NamespacesFrom = "All"
)
