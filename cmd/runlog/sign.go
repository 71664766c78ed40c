package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/runlog-io/runlog"
	"github.com/runlog-io/runlog/manifest"
	"github.com/runlog-io/runlog/vfs"
)

const maxKeyFile = 4 << 10

func (a *app) keygenCmd() *cobra.Command {
	return &cobra.Command{
		Use: "keygen NAME FILE", Short: "Make a key pair to sign statements with",
		Long: `keygen makes an Ed25519 key pair. The private key goes to FILE, which only its owner can read, the public one to FILE.pub; neither is ever
overwritten. NAME stands in every signature: it says whose the key is, without spaces or plus signs. Whoever has FILE can sign whatever he
likes: keep it away from the machine that writes the log.`,
		Example: `  runlog keygen desk-1.example.com desk.key`,
		Args:    exactly("NAME", "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] == "" || strings.ContainsAny(args[0], "+ \t\n") || printable(args[0], -1) != args[0] {
				return fmt.Errorf("name %q: want printable text without spaces and plus signs", args[0])
			}
			private, public, err := note.GenerateKey(nil, args[0])
			if err != nil {
				return err
			}
			if err := writeNew(args[1], private+"\n", 0o600); err != nil {
				return err
			}
			if err := writeNew(args[1]+".pub", public+"\n", 0o644); err != nil {
				return errors.Join(err, os.Remove(args[1]))
			}
			if a.json {
				return a.printJSON(struct {
					Name   string `json:"name"`
					File   string `json:"file"`
					Public string `json:"public"`
				}{args[0], args[1], public})
			}
			a.out.line("%s", public)
			return nil
		},
	}
}

// writeNew makes a file that was not there, and leaves none behind when it cannot be written.
func writeNew(name, text string, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// readSigner reads a private key; no file is no key.
func readSigner(file string) (note.Signer, error) {
	if file == "" {
		return nil, nil
	}
	b, err := readSmall(file, maxKeyFile)
	if err != nil {
		return nil, err
	}
	s, err := note.NewSigner(strings.TrimSpace(string(b)))
	if err != nil { // the error would hold parts of the key
		return nil, fmt.Errorf("%s: not a private key that runlog keygen has made", file)
	}
	return s, nil
}

func readVerifier(file string) (note.Verifier, error) {
	b, err := readSmall(file, maxKeyFile)
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%s: not a public key that runlog keygen has made", file)
	}
	return v, nil
}

func (a *app) signCmd() *cobra.Command {
	keyFile, replace := "", false
	cmd := &cobra.Command{
		Use: "sign RUN", Short: "Store a signed statement in the manifest of a sealed run",
		Long: `sign verifies a sealed run, signs its statement and stores that in the run's manifest, so that the signature goes wherever the run goes.
Nothing else of the run changes. It takes the instance's lock: while an engine holds the instance, use runlog statement --key, which needs
none. A signature that is there is not replaced without --replace.

Who can write the run's folder can also remove the signature, or replace it by another key's: give the statement away as well.`,
		Example: `  runlog sign runs/demo/2026* --key desk.key
  runlog check-statement runs/demo/2026* --pub desk.key.pub`,
		Args: exactly("RUN"),
		RunE: func(_ *cobra.Command, args []string) error {
			if keyFile == "" {
				return fmt.Errorf("want --key, the file with the private key")
			}
			signer, err := readSigner(keyFile)
			if err != nil {
				return err
			}
			return a.sign(filepath.Clean(args[0]), signer, replace)
		},
	}
	cmd.Flags().StringVar(&keyFile, "key", "", "file with the private key, see runlog keygen")
	cmd.Flags().BoolVar(&replace, "replace", false, "replace a signature that is there")
	return cmd
}

func (a *app) sign(dir string, signer note.Signer, replace bool) error {
	if _, err := sealedManifest(dir); err != nil { // before anything is locked
		return err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if !manifest.ValidRunID(filepath.Base(abs)) {
		return fmt.Errorf("%s: the folder is not named as a run, so it may not be in an instance's folder: "+
			"rename it, or use runlog statement", dir)
	}
	lock, err := lockInstance(filepath.Dir(abs))
	if err != nil {
		return err
	}
	defer lock.Close()
	m, err := sealedManifest(dir)
	if err != nil {
		return err
	}
	if m.Signature != "" && !replace {
		return fmt.Errorf("%s: the manifest is signed already; --replace replaces the signature", dir)
	}
	st, _, err := a.survey(dir, &m, nil)
	if err != nil {
		return err
	}
	b, err := st.Sign(signer)
	if err != nil {
		return err
	}
	// Twice, so that the previous copy has the signature too: nothing else knows it.
	m.Signature = string(b)
	for range 2 {
		if err := manifest.Write(vfs.OS, dir, m); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(newStatementJSON(&st, m.Signature))
	}
	a.out.line("%s: signed by %s: %s, root %s", dir, printable(signer.Name(), -1),
		number(st.Entries, "entry", "entries"), st.Root)
	return nil
}

// lockInstance takes the lock of an instance's folder, and says who has it if it cannot.
func lockInstance(inst string) (io.Closer, error) {
	host, _ := os.Hostname()
	lock, err := vfs.OS.Lock(filepath.Join(inst, manifest.LockName),
		manifest.EncodeHolder(manifest.Holder{PID: os.Getpid(), Host: host, Since: time.Now().UnixNano()}))
	var held *vfs.LockedError
	if errors.As(err, &held) {
		who := "an unknown process"
		if h, ok := manifest.DecodeHolder(held.Holder); ok {
			who = h.String()
		}
		return nil, fmt.Errorf("%s: left alone: %w by %s", inst, runlog.ErrLocked, who)
	}
	return lock, err
}
