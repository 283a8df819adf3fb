package agent

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// refreshAt is the part of a token's life after which the kubelet asks for a new one.
const refreshAt = 0.8

// Processes here share the machine's file system: a container sees no mount. What a volume holds is written
// into a folder of its pod, and a container that mounts a service account is told of that folder by
// injected.EnvServiceAccountDir, and one that mounts return addresses by injected.EnvReturnAddressesFile.
type volumes struct {
	agent *Agent
	dir   string
	// due is when the first token of the pod must be replaced; zero: none is held.
	due time.Time
}

// write writes every volume of the pod, or says which one this node cannot offer.
func (v *volumes) write(ctx context.Context, pod *corev1.Pod) error {
	v.due = time.Time{}
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		switch {
		case volume.EmptyDir != nil:
			if err := os.MkdirAll(v.folder(volume.Name), 0o700); err != nil {
				return err
			}
		case volume.DownwardAPI != nil:
			if err := v.downward(pod, volume.Name, volume.DownwardAPI.Items); err != nil {
				return fmt.Errorf("volume %s: %w", volume.Name, err)
			}
		case volume.Projected != nil:
			if err := v.projected(ctx, pod, volume); err != nil {
				return fmt.Errorf("volume %s: %w", volume.Name, err)
			}
		default:
			return fmt.Errorf("volume %s: this node runs containers as processes without mounts and offers projected, downwardAPI and emptyDir volumes only", volume.Name)
		}
	}
	return nil
}

func (v *volumes) folder(volume string) string { return filepath.Join(v.dir, "volumes", volume) }

func (v *volumes) projected(ctx context.Context, pod *corev1.Pod, volume *corev1.Volume) error {
	for _, s := range volume.Projected.Sources {
		var err error
		switch {
		case s.ServiceAccountToken != nil:
			err = v.token(ctx, pod, volume.Name, s.ServiceAccountToken)
		case s.ConfigMap != nil:
			err = v.configMap(ctx, pod, volume.Name, s.ConfigMap)
		case s.DownwardAPI != nil:
			err = v.downward(pod, volume.Name, s.DownwardAPI.Items)
		default:
			err = fmt.Errorf("this node projects serviceAccountToken, configMap and downwardAPI only")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// token asks for a token that is bound to the pod, as the kubelet does.
func (v *volumes) token(ctx context.Context, pod *corev1.Pod, volume string, want *corev1.ServiceAccountTokenProjection) error {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: want.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	if want.Audience != "" {
		request.Spec.Audiences = []string{want.Audience}
	}
	got, err := v.agent.config.Client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token of service account %s: %w", pod.Spec.ServiceAccountName, err)
	}
	life := time.Until(got.Status.ExpirationTimestamp.Time)
	if due := time.Now().Add(time.Duration(float64(life) * refreshAt)); v.due.IsZero() || due.Before(v.due) {
		v.due = due
	}
	return v.file(volume, want.Path, []byte(got.Status.Token))
}

func (v *volumes) configMap(ctx context.Context, pod *corev1.Pod, volume string, want *corev1.ConfigMapProjection) error {
	m, err := v.agent.config.Client.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, want.Name, metav1.GetOptions{})
	if err != nil {
		return unlessOptional(err, want.Optional)
	}
	items := want.Items
	if len(items) == 0 {
		for k := range m.Data {
			items = append(items, corev1.KeyToPath{Key: k, Path: k})
		}
	}
	for _, item := range items {
		text, ok := m.Data[item.Key]
		if !ok {
			return unlessOptional(fmt.Errorf("configmap %s has no key %s", want.Name, item.Key), want.Optional)
		}
		if err := v.file(volume, item.Path, []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

func (v *volumes) downward(pod *corev1.Pod, volume string, items []corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		if item.FieldRef == nil {
			return fmt.Errorf("%s: this node knows fieldRef only", item.Path)
		}
		text, err := field(pod, item.FieldRef.FieldPath)
		if err != nil {
			return err
		}
		if err := v.file(volume, item.Path, []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// file replaces a file in one step: a reader sees the old token or the new one, never half of one.
func (v *volumes) file(volume, name string, text []byte) error {
	file := filepath.Join(v.folder(volume), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	temporary := file + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, file)
}

// serviceAccountDir is the folder of the token that the container would read first, were it mounted.
func (v *volumes) serviceAccountDir(c *corev1.Container) (string, bool) {
	for _, wanted := range []string{injected.ProjectedServiceAccountDir, injected.DefaultServiceAccountDir} {
		for _, m := range c.VolumeMounts {
			if path.Clean(m.MountPath) == wanted {
				return v.folder(m.Name), true
			}
		}
	}
	return "", false
}

// unseen names a mount that the container needs and would not see.
func unseen(pod *corev1.Pod, c *corev1.Container) error {
	for _, m := range c.VolumeMounts {
		switch path.Clean(m.MountPath) {
		case injected.ProjectedServiceAccountDir, injected.DefaultServiceAccountDir, injected.ReturnAddressesDir, "/tmp":
			continue
		}
		return fmt.Errorf("container %s of pod %s mounts %s at %s, and this node runs containers as processes without mounts", c.Name, pod.Name, m.Name, m.MountPath)
	}
	return nil
}
