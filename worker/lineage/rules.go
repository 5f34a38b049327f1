package lineage

import (
	"fmt"
	"regexp"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/assetmill/assetmill/schemas"
)

// A BigQuery NUMERIC has 29 digits before the point and 9 after it.
var numeric = regexp.MustCompile(`^-?[0-9]{1,29}(\.[0-9]{1,9})?$`)

// A BigQuery TIMESTAMP lies between the years 1 and 9999, here in microseconds since 1970.
const (
	minTimestamp = -62_135_596_800_000_000
	maxTimestamp = 253_402_300_799_999_999
)

// checkRow says what BigQuery would refuse a row for. It is checked here because one such row fails the whole request that
// it travels in, because the answer then depends on its neighbours, and because the emulator stores it with a 0 instead.
func checkRow(m protoreflect.Message) error {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			if required, _ := proto.GetExtension(f.Options(), schemas.E_Required).(bool); required {
				return fmt.Errorf("%s is required", f.Name())
			}
			continue
		}
		if err := checkValue(f, m.Get(f)); err != nil {
			return err
		}
	}
	return nil
}

func checkValue(f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	if f.Kind() == protoreflect.MessageKind && f.IsList() {
		for i := range v.List().Len() {
			if err := checkRow(v.List().Get(i).Message()); err != nil {
				return fmt.Errorf("%s[%d].%w", f.Name(), i, err)
			}
		}
		return nil
	}
	switch columnType, _ := proto.GetExtension(f.Options(), schemas.E_BigqueryType).(string); columnType {
	case "NUMERIC":
		if !numeric.MatchString(v.String()) {
			return fmt.Errorf("%s is no decimal number with at most 29 digits before and 9 after the point", f.Name())
		}
	case "TIMESTAMP":
		if t := v.Int(); t < minTimestamp || t > maxTimestamp {
			return fmt.Errorf("%s is outside the years 1 to 9999: %d microseconds since 1970", f.Name(), t)
		}
	}
	return nil
}

// nullable makes unset fields NULL. The normalized descriptor declares proto3's zero values as defaults, with which BigQuery
// would store 1970 for a moment that never was and refuse the empty string as NUMERIC. The options are ours, not BigQuery's.
func nullable(d *descriptorpb.DescriptorProto) {
	for _, f := range d.GetField() {
		f.DefaultValue, f.Options = nil, nil
	}
	for _, nested := range d.GetNestedType() {
		nullable(nested)
	}
}
