package resource

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Resolver finds the types inside an Any for protojson and prototext. A type
// that is not linked is found too, as an empty message that keeps its content
// as unknown fields: a file or a dump that holds one does not fail.
type Resolver struct{ *protoregistry.Types }

// NewResolver returns a resolver over all linked types.
func NewResolver() *Resolver { return &Resolver{protoregistry.GlobalTypes} }

// FindMessageByURL returns protoregistry.NotFound only for what cannot be a
// type's name.
func (r *Resolver) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	mt, err := r.Types.FindMessageByURL(url)
	if err == nil {
		return mt, nil
	}
	return empty(protoreflect.FullName(url[strings.LastIndexByte(url, '/')+1:]))
}

// Linked says whether the type of an Any's URL is linked in.
func Linked(url string) bool {
	mt, _ := find(url)
	return mt != nil
}

// empty makes a message type without fields.
func empty(name protoreflect.FullName) (protoreflect.MessageType, error) {
	if !name.IsValid() {
		return nil, protoregistry.NotFound
	}
	file := &descriptorpb.FileDescriptorProto{
		Name:        proto.String("unlinked/" + string(name) + ".proto"),
		Syntax:      proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String(string(name.Name()))}},
	}
	if parent := name.Parent(); parent != "" {
		file.Package = proto.String(string(parent))
	}
	fd, err := protodesc.NewFile(file, nil)
	if err != nil {
		return nil, protoregistry.NotFound
	}
	return dynamicpb.NewMessageType(fd.Messages().Get(0)), nil
}
