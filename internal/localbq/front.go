package localbq

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// The front stands between clients and the emulator because the emulator's AppendRows (v0.8.1) departs from BigQuery's:
//
//   - A client may leave out the stream's name and schema after its first request. The emulator then writes to a random
//     table.
//
//   - It decodes every request of a connection with the first request's schema.
//
//   - A row that it can't take is answered as INTERNAL, which means "try again", and ends the connection. BigQuery answers
//     INVALID_ARGUMENT and goes on.
//
//   - It knows a default stream only after GetWriteStream, so a client that reconnects after a restart is refused, and
//     the refusal leaves a lock held for ever.
//
//   - While it appends, a query fails with "database is locked", and the other way round.
//
// The front completes each request from those before it, asks for the stream first, gives each append a connection of its
// own, and takes turns with the REST API.
type front struct {
	storagepb.UnimplementedBigQueryWriteServer
	inner storagepb.BigQueryWriteClient
	turn  *sync.Mutex // held for one append or one REST request: there is one SQLite
}

// takeTurns serves one request at a time.
func takeTurns(turn *sync.Mutex, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn.Lock()
		defer turn.Unlock()
		next.ServeHTTP(w, r)
	})
}

func newFront(conn *grpc.ClientConn, turn *sync.Mutex) *grpc.Server {
	srv := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxSendMsgSize(maxMessageBytes))
	storagepb.RegisterBigQueryWriteServer(srv, &front{inner: storagepb.NewBigQueryWriteClient(conn), turn: turn})
	storagepb.RegisterBigQueryReadServer(srv, &reader{inner: storagepb.NewBigQueryReadClient(conn)})
	return srv
}

// GetWriteStream implements BigQueryWriteServer.
func (f *front) GetWriteStream(ctx context.Context, req *storagepb.GetWriteStreamRequest) (*storagepb.WriteStream, error) {
	stream, err := f.inner.GetWriteStream(ctx, req)
	if err != nil && strings.Contains(err.Error(), "failed to find stream") {
		return nil, status.Errorf(codes.NotFound, "Requested entity was not found. Entity: %s", req.GetName())
	}
	return stream, err
}

// AppendRows implements BigQueryWriteServer.
func (f *front) AppendRows(client storagepb.BigQueryWrite_AppendRowsServer) error {
	var name string
	schemas := map[string]*storagepb.ProtoSchema{} // by stream
	for {
		req, err := client.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if req.GetWriteStream() != "" {
			name = req.GetWriteStream()
		}
		if s := req.GetProtoRows().GetWriterSchema(); s != nil {
			schemas[name] = s
		}
		whole := proto.CloneOf(req)
		whole.WriteStream = name
		if rows := whole.GetProtoRows(); rows != nil {
			rows.WriterSchema = schemas[name]
		}
		resp, err := f.appendOne(client.Context(), whole)
		if err != nil {
			return err
		}
		if err := client.Send(resp); err != nil {
			return err
		}
	}
}

// appendOne makes one append and returns the answer as BigQuery would give it.
func (f *front) appendOne(ctx context.Context, req *storagepb.AppendRowsRequest) (*storagepb.AppendRowsResponse, error) {
	if req.GetProtoRows().GetWriterSchema() == nil {
		return nil, status.Error(codes.InvalidArgument, "the first request of a stream needs rows and their schema")
	}
	f.turn.Lock()
	defer f.turn.Unlock()
	if _, err := f.GetWriteStream(ctx, &storagepb.GetWriteStreamRequest{Name: req.GetWriteStream()}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the connection
	stream, err := f.inner.AppendRows(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(req); err != nil {
		return nil, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if refusal := resp.GetError(); refusal != nil {
		resp.Response = &storagepb.AppendRowsResponse_Error{Error: &statuspb.Status{Code: int32(refusalCode(refusal.GetMessage())), Message: refusal.GetMessage()}}
	} else {
		resp.GetAppendResult().Offset = nil // BigQuery's default streams have no offsets
	}
	return resp, nil
}

// refusalCode tells an emulator that is busy from one that will never take the rows.
func refusalCode(message string) codes.Code {
	if strings.Contains(message, "locked") || strings.Contains(message, "busy") {
		return codes.Unavailable
	}
	return codes.InvalidArgument
}

// reader passes the Storage Read API through.
type reader struct {
	storagepb.UnimplementedBigQueryReadServer
	inner storagepb.BigQueryReadClient
}

// CreateReadSession implements BigQueryReadServer.
func (r *reader) CreateReadSession(ctx context.Context, req *storagepb.CreateReadSessionRequest) (*storagepb.ReadSession, error) {
	return r.inner.CreateReadSession(ctx, req)
}

// ReadRows implements BigQueryReadServer.
func (r *reader) ReadRows(req *storagepb.ReadRowsRequest, client storagepb.BigQueryRead_ReadRowsServer) error {
	stream, err := r.inner.ReadRows(client.Context(), req)
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := client.Send(resp); err != nil {
			return err
		}
	}
}
