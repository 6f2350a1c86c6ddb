package artifact

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
)

// The standard types and roles, as beam_runner_api.proto's StandardArtifacts names them.
const (
	typeFile     = "beam:artifact:type:file:v1"
	typeURL      = "beam:artifact:type:url:v1"
	typeEmbedded = "beam:artifact:type:embedded:v1"
	typePyPI     = "beam:artifact:type:pypi:v1"
	typeMaven    = "beam:artifact:type:maven:v1"
	typeDeferred = "beam:artifact:type:deferred:v1"

	roleStagingTo = "beam:artifact:role:staging_to:v1"
)

// dependency is an ArtifactInformation with its payloads decoded.
type dependency struct {
	info *pipepb.ArtifactInformation
	// name is the clean staged name; "" when the role gives none.
	name string
	// sum is the sha256 that a file or URL artifact promises, in lower case; "" when it promises none.
	sum string
	// Exactly one of these is set, by type.
	file     *pipepb.ArtifactFilePayload
	url      *pipepb.ArtifactUrlPayload
	embedded *pipepb.EmbeddedFilePayload
	// pkg is the package that a pypi or maven artifact names.
	pkg string
}

// errUnresolved marks what makes sense only before the SDK has resolved its artifacts: an SDK may turn any type into
// another then.
var errUnresolved = errors.New("not resolved")

// decode decodes and checks an artifact. Its errors do not say which environment it is for.
func decode(info *pipepb.ArtifactInformation) (*dependency, error) {
	d := &dependency{info: info}
	if err := errors.Join(d.decodeRole(), d.decodeType()); err != nil {
		return nil, fmt.Errorf("artifact %s: %w", describe(info), err)
	}
	return d, nil
}

func (d *dependency) decodeRole() error {
	if d.info.GetRoleUrn() != roleStagingTo {
		return nil
	}
	role := &pipepb.ArtifactStagingToRolePayload{}
	if err := proto.Unmarshal(d.info.GetRolePayload(), role); err != nil {
		return fmt.Errorf("role payload: %w", err)
	}
	var err error
	d.name, err = stagedName(role.GetStagedName())
	return err
}

func (d *dependency) decodeType() error {
	payload := d.info.GetTypePayload()
	var err error
	switch d.info.GetTypeUrn() {
	case typeFile:
		d.file = &pipepb.ArtifactFilePayload{}
		err = proto.Unmarshal(payload, d.file)
		d.sum = d.file.GetSha256()
	case typeURL:
		d.url = &pipepb.ArtifactUrlPayload{}
		err = proto.Unmarshal(payload, d.url)
		d.sum = d.url.GetSha256()
	case typeEmbedded:
		d.embedded = &pipepb.EmbeddedFilePayload{}
		err = proto.Unmarshal(payload, d.embedded)
	case typePyPI:
		pypi := &pipepb.PyPIPayload{}
		err = proto.Unmarshal(payload, pypi)
		d.pkg = pypi.GetArtifactId()
		if pypi.GetVersion() != "" {
			d.pkg += "==" + pypi.GetVersion()
		}
		if err == nil && pypi.GetArtifactId() == "" {
			err = errors.New("it names no package")
		}
	case typeMaven:
		maven := &pipepb.MavenPayload{}
		err = proto.Unmarshal(payload, maven)
		d.pkg = maven.GetArtifact()
		if err == nil && d.pkg == "" {
			err = errors.New("it names no package")
		}
	case typeDeferred:
		return fmt.Errorf("%w: a deferred artifact means something only to the expansion service that made it, and the SDK has "+
			"not asked it", errUnresolved)
	default:
		return fmt.Errorf("%w: this type is not known here; Trestle takes the types file, url, embedded, pypi and maven", errUnresolved)
	}
	if err == nil && d.sum != "" {
		d.sum, err = normalizeSHA256(d.sum)
	}
	if err != nil {
		return fmt.Errorf("type payload: %w", err)
	}
	return nil
}

// Check tells, before anything is staged, everything that is wrong with environments' dependencies: staged names that
// leave the harness's folder, payloads that cannot be decoded. Each error names environment and artifact. Artifacts of a
// type that is not known here pass, since the SDK may turn them into others when staging asks it to resolve them.
func Check(byEnvironment map[string][]*pipepb.ArtifactInformation) error {
	var errs []error
	for _, environment := range slices.Sorted(maps.Keys(byEnvironment)) {
		for _, info := range byEnvironment[environment] {
			d := &dependency{info: info}
			problem := d.decodeType()
			if errors.Is(problem, errUnresolved) {
				problem = nil
			}
			if err := errors.Join(d.decodeRole(), problem); err != nil {
				errs = append(errs, fmt.Errorf("environment %q: artifact %s: %w", environment, describe(info), err))
			}
		}
	}
	return errors.Join(errs...)
}

// decodeAll decodes an environment's artifacts, and tells all that is wrong with them at once.
func decodeAll(environment string, infos []*pipepb.ArtifactInformation) ([]*dependency, error) {
	var errs []error
	deps := make([]*dependency, 0, len(infos))
	for _, info := range infos {
		d, err := decode(info)
		if err != nil {
			errs = append(errs, fmt.Errorf("environment %q: %w", environment, err))
			continue
		}
		deps = append(deps, d)
	}
	return deps, errors.Join(errs...)
}

// describe names an artifact for a person: by what it is, then type and role where they tell more.
func describe(info *pipepb.ArtifactInformation) string {
	var name string
	switch info.GetTypeUrn() {
	case typeFile:
		payload := &pipepb.ArtifactFilePayload{}
		if proto.Unmarshal(info.GetTypePayload(), payload) == nil {
			name = payload.GetPath()
		}
	case typeURL:
		payload := &pipepb.ArtifactUrlPayload{}
		if proto.Unmarshal(info.GetTypePayload(), payload) == nil {
			name = redact(payload.GetUrl())
		}
	case typeDeferred:
		payload := &pipepb.DeferredArtifactPayload{}
		if proto.Unmarshal(info.GetTypePayload(), payload) == nil {
			name = payload.GetKey()
		}
	case typePyPI:
		payload := &pipepb.PyPIPayload{}
		if proto.Unmarshal(info.GetTypePayload(), payload) == nil {
			name = strings.TrimSuffix(payload.GetArtifactId()+"=="+payload.GetVersion(), "==")
		}
	case typeMaven:
		payload := &pipepb.MavenPayload{}
		if proto.Unmarshal(info.GetTypePayload(), payload) == nil {
			name = payload.GetArtifact()
		}
	}
	if info.GetRoleUrn() == roleStagingTo {
		role := &pipepb.ArtifactStagingToRolePayload{}
		if proto.Unmarshal(info.GetRolePayload(), role) == nil && role.GetStagedName() != path.Base(name) {
			name = strings.TrimSpace(fmt.Sprintf("%s as %q", name, role.GetStagedName()))
		}
	}
	return fmt.Sprintf("%s (type %s, role %s)", name, info.GetTypeUrn(), info.GetRoleUrn())
}

// staged is the form in which harnesses get an artifact that the store has.
func staged(info *pipepb.ArtifactInformation, d Digest) (*pipepb.ArtifactInformation, error) {
	payload, err := proto.Marshal(&pipepb.ArtifactFilePayload{Path: d.SHA256, Sha256: d.SHA256})
	if err != nil {
		return nil, err
	}
	return &pipepb.ArtifactInformation{
		TypeUrn:     typeFile,
		TypePayload: payload,
		RoleUrn:     info.GetRoleUrn(),
		RolePayload: info.GetRolePayload(),
	}, nil
}
