// Package v1alpha1 contains the kinds of the API group replyqueue.dev, version v1alpha1.
// +kubebuilder:object:generate=true
// +groupName=replyqueue.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the group and version of the kinds in this package.
	GroupVersion = schema.GroupVersion{Group: "replyqueue.dev", Version: "v1alpha1"}

	// SchemeBuilder collects the functions that register the kinds.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme registers the kinds of this package with a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&RequestChannel{}, &RequestChannelList{},
		&ReplyHost{}, &ReplyHostList{},
		&ReplyQueue{}, &ReplyQueueList{},
		&QueueProvider{}, &QueueProviderList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
